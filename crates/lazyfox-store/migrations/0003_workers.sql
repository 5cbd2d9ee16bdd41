-- What workers did to jobs.

-- Whether the worker is known to work on the job that it holds; if not, the job waits inside the worker.
ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 1
    CHECK (begun IN (0, 1)) CHECK (begun = 1 OR status = 'IN_PROGRESS');
-- Workers that died in a row while they ran the job: on each line a worker, a space and how it ended, in which
-- \n is the end of a line and \\ a backslash. NULL for none.
ALTER TABLE jobs ADD COLUMN deaths TEXT CHECK (deaths <> '');
-- After so many of them the job is given up; 0, as for all jobs of earlier formats, is never.
ALTER TABLE jobs ADD COLUMN poison_after INTEGER NOT NULL DEFAULT 0
    CHECK (poison_after BETWEEN 0 AND 10);
