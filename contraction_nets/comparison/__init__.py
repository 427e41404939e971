"""Ways to the same answer side by side, as rows of plain numbers; nothing here prints."""
