alter table tenant drop column retention;
