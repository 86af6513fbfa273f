-- Pipelines made over the HTTP API. Those of millrace.yaml are not here. definition: as it was given, secrets by reference
-- only (env:NAME, file:PATH). Only Millrace writes here.
CREATE TABLE kafka.pipelines (
  kind       text NOT NULL,
  name       text NOT NULL,
  definition jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (kind, name)
);

-- What a capture holds in its source, so that it can be let go of when the definition is no longer there. source: as it was
-- written, NULL for this database. slot_made: by Millrace, so that Millrace may drop it.
ALTER TABLE kafka.captures
  ADD COLUMN publication_name text,
  ADD COLUMN source text,
  ADD COLUMN slot_made boolean NOT NULL DEFAULT false;
