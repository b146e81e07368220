"""From the hospital's files to typed records. Start at `fhir`; `load` brings a file in."""
