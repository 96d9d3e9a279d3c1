"""The shortest use: train on a folder or a named set, read the figures, name new pictures.

python examples/ten_lines.py [DATA] [EPOCHS]
"""

import sys

import convsmith

data = sys.argv[1] if len(sys.argv) > 1 else "digits"
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else None

run = convsmith.train(data, epochs=epochs)
print(run.results["accuracy"])  # value [low, high] on images that played no part in training
print([finding.says for finding in run.findings])  # what the diagnosis noticed
pictures = convsmith.load_data(data)
classifier = run.classifier()
print(classifier.predict([pictures.read(0), pictures.read(1)]))  # paths and PIL images work too
print("report:", run.report())
