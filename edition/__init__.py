"""The site as one HTML file, and as a PDF made from that file: ``make edition``."""
