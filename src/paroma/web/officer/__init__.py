"""The pages of a hospital's officer: what is asked, what holds, who belongs to the site, how it is. Start at `views`."""
