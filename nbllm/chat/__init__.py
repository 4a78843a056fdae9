"""Messages to prompt to reply: templates, conversations, and the thread that runs them. Knows no notebook."""
