"""The pages: Sphinx directives, code that runs in the page, drawings."""
