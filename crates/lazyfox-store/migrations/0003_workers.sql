-- What workers did to jobs, and what is known of endpoints beside their jobs.

-- Whether the worker is known to work on the job that it holds; if not, the job waits inside the worker.
ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 1
    CHECK (begun IN (0, 1)) CHECK (begun = 1 OR status = 'IN_PROGRESS');
-- Workers that died in a row while they ran the job: on each line a worker, a space and how it ended, in which
-- \n is the end of a line and \\ a backslash. NULL for none.
ALTER TABLE jobs ADD COLUMN deaths TEXT CHECK (deaths <> '');
-- After so many of them the job is given up; 0, as for all jobs of earlier formats, is never.
ALTER TABLE jobs ADD COLUMN poison_after INTEGER NOT NULL DEFAULT 0
    CHECK (poison_after BETWEEN 0 AND 10);

-- number counts the releases of an endpoint's workers from 1, fingerprint is that of the latest one, released_at
-- its beginning. settings is a JSON text of what somebody changed while the server ran.
CREATE TABLE endpoints (
    endpoint    TEXT PRIMARY KEY,
    number      INTEGER CHECK (number BETWEEN 1 AND 4294967295),
    fingerprint BLOB    CHECK (length(fingerprint) = 32),
    released_at INTEGER,
    settings    TEXT,
    CHECK ((number IS NULL) = (fingerprint IS NULL)),
    CHECK ((number IS NULL) = (released_at IS NULL))
) WITHOUT ROWID;
