"""The base page, its components, charts and static files. Start at `pages.Pages`."""
