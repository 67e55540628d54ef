drop schema helve_audit cascade;
