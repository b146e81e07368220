"""The patient's pages at a site. They work without script; start at `views`."""
