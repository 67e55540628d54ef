-- What a run itself asks of the labels of its worker, instead of its workflow. Null, as for nearly every run, costs no
-- byte.
alter table open_run add column labels text;
