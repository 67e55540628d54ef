drop table pause;
