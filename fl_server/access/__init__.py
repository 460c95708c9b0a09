"""Who may come in: certificates, enrolment, and the registry of clients."""
