-- Some items of jobs that ended before a time.
delete from job_item
where (job, run) in (
    select i.job, i.run
    from job j join job_item i on i.job = j.id
    where j.finished_at < $1
    limit $2
)
