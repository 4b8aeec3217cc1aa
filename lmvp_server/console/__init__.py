"""What pages draw: marks, rows and sentences, made of what the services answer. No HTTP and no rules in here."""
