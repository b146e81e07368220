"""The page "Four people, one study": patient, officer, scientist and auditor beside each other, live. Start at `page.render_page`."""
