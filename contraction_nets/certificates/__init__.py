"""What can be proved about weights: certificates and their exact verification."""
