"""Exchange with the Hugging Face Hub, and only that: its client, snapshots of repositories, pull and push."""
