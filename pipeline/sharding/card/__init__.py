"""The data card: what a shards artifact holds, as JSON, Markdown, a page and a contact sheet."""
