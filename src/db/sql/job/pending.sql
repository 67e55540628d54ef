-- Runs that were picked and not decided.
select run from job_item where job = $1 and outcome is null order by run limit $2
