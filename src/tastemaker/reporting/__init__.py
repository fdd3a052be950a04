"""Pages and folders for people: reports, contact sheets, published models."""
