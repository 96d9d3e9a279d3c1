"""What a network holds, costs and keeps, counted on its recorded graph."""
