"""The data card: describes a shards artifact as JSON, Markdown, an HTML page and a contact sheet."""
