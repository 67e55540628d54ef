-- Jobs that ended before a time and have no item left.
delete from job j where j.finished_at < $1 and not exists (select from job_item i where i.job = j.id)
