alter table lane drop column sign;
