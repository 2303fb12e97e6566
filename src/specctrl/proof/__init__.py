"""Every value, histories of any length: the rule code on symbolic words."""
