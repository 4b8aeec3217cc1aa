"""Building blocks of console pages: marks, rows and sentences from the data of services. No HTTP and no rules."""
