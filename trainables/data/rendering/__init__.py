"""Images that are rendered here."""
