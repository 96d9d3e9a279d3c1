"""timm's and torchvision's networks by name, and weights that were published for them."""
