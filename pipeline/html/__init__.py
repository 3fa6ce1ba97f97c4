"""Pages that need nothing beside themselves: markup, look, pictures inside."""
