"""The demo federation: one hub, four hospitals, five real processes over TLS, and nine scenes that hold or fail."""
