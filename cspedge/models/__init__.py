"""What can come in: timm names, local timm folders, weight files, and their preprocessing contract."""
