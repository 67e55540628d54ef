alter table open_run drop column unparked;
