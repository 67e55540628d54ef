alter table open_run drop column labels;
