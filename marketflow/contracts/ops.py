"""Postgres ops.*: what the platform knows about itself. Rows copy facts kept elsewhere, idempotent by their key."""

from __future__ import annotations

from marketflow.contracts.columns import Column, Table, Type

TRADE_GAP = Table(
    layer="ops",
    name="trade_gap",
    grain="one row per hole in trade_id",
    key=("venue", "product_id", "first_missing_id"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("first_missing_id", Type.LONG, "lowest missing trade_id"),
        Column("last_missing_id", Type.LONG, "highest missing trade_id"),
        Column("detected_at", Type.TIMESTAMP, "when it was first seen"),
        Column("detected_by", Type.STRING, "producer or silver"),
        Column(
            "cause",
            Type.STRING,
            "drop, reconnect, backpressure, killed (the producer was not running: killed or stopped) or unknown",
        ),
        Column("status", Type.STRING, "open, healed or unrecoverable"),
        Column("attempts", Type.INTEGER, "heals tried", "count"),
        Column("healed_at", Type.TIMESTAMP, "when the last missing trade was published", "", True),
        Column("connection_id", Type.STRING, "connection that saw it", "", True),
        Column("last_attempt_at", Type.TIMESTAMP, "when the last try to heal it began", "", True),
        Column("detail", Type.STRING, "why the last try failed, or why it was given up", "", True),
    ),
    owner="producer",
    description="The gap ledger.",
)

STREAM_PROGRESS = Table(
    layer="ops",
    name="stream_progress",
    grain="one row per streaming batch",
    key=("query", "run_id", "batch_id", "event"),
    columns=(
        Column("query", Type.STRING, "bronze_trades_raw, …, live_prices, live_features"),
        Column("run_id", Type.STRING, "Spark's id of this start of the query"),
        Column("batch_id", Type.LONG, "batch of the query"),
        Column("event", Type.STRING, "started, progress, idle or terminated"),
        Column("at", Type.TIMESTAMP, "the event's own time"),
        Column("input_rows", Type.LONG, "rows read", "count", True),
        Column("input_rows_per_s", Type.DOUBLE, "arrival rate", "rows/s", True),
        Column("processed_rows_per_s", Type.DOUBLE, "processing rate", "rows/s", True),
        Column("duration_ms", Type.LONG, "trigger execution", "ms", True),
        Column("end_offsets", Type.STRING, "JSON: topic to partition to next offset", "", True),
        Column("latest_offsets", Type.STRING, "JSON: the topic's end as the batch saw it", "", True),
        Column("error", Type.STRING, "why the query ended", "", True),
    ),
    owner="market_stream",
    description="Every batch of every query of the stream.",
)

SERVICE_DESIRED = Table(
    layer="ops",
    name="service_desired",
    grain="one row per service",
    key=("service",),
    columns=(
        Column("service", Type.STRING, "name as the service backend knows it"),
        Column("desired", Type.STRING, "running or stopped"),
        Column("set_by", Type.STRING, "configuration, or the person or run that asked"),
        Column("set_at", Type.TIMESTAMP, "when it was set"),
        Column("configuration_hash", Type.STRING, "of the settings the service was started with", "", True),
    ),
    owner="producers",
    description="What should run, and who said so.",
)

SERVICE_EVENT = Table(
    layer="ops",
    name="service_event",
    grain="one row per thing that happened to a service",
    key=("service", "at", "event"),
    columns=(
        Column("service", Type.STRING, "name as the service backend knows it"),
        Column("at", Type.TIMESTAMP, "when"),
        Column("event", Type.STRING, "started, stopped, restarted, down, flapping, hung, silent, behind, healthy"),
        Column("detail", Type.STRING, "a sentence"),
        Column("run_id", Type.STRING, "Airflow run that did or saw it", "", True),
    ),
    owner="producers",
    description="The life of producers and stream.",
)

LAYER_FRESHNESS_MARK = Table(
    layer="ops",
    name="layer_mark",
    grain="one row per table",
    key=("table_name",),
    columns=(
        Column("table_name", Type.STRING, "bronze.trades_raw, silver.trades, gold.bars, …"),
        Column("complete_through", Type.TIMESTAMP, "processing time up to which everything that arrived is in"),
        Column("newest_event_at", Type.TIMESTAMP, "event time of the newest row", "", True),
        Column("snapshot_id", Type.LONG, "Iceberg snapshot the mark belongs to", "", True),
        Column("updated_at", Type.TIMESTAMP, "when this row was written"),
    ),
    owner="each layer's writer",
    description="What view ops.layer_freshness is made of. complete_through never moves back.",
)

SILVER_ACCOUNTING = Table(
    layer="ops",
    name="silver_accounting",
    grain="one row per silver commit",
    key=("table_name", "snapshot_id"),
    columns=(
        Column("table_name", Type.STRING, "silver.trades, …"),
        Column("snapshot_id", Type.LONG, "Iceberg snapshot of the accepted rows' commit"),
        Column("committed_at", Type.TIMESTAMP, "the snapshot's time"),
        Column("first_offsets", Type.STRING, "JSON: topic to partition to first offset of the batch"),
        Column("next_offsets", Type.STRING, "JSON: the watermark after the batch"),
        Column("messages", Type.LONG, "bronze rows read = ignored + parsed + unparseable", "count"),
        Column("ignored", Type.LONG, "messages ignored by name", "count"),
        Column("ignored_by_name", Type.STRING, "JSON: name to count"),
        Column("parsed", Type.LONG, "messages that gave at least one item", "count"),
        Column("unparseable", Type.LONG, "messages that gave one rejected item with index -1", "count"),
        Column("items", Type.LONG, "items of parsed and unparseable = accepted + duplicate + rejected", "count"),
        Column("accepted", Type.LONG, "rows added", "count"),
        Column("duplicate", Type.LONG, "items already there with the same content from another record", "count"),
        Column("rejected", Type.LONG, "items in silver.rejected", "count"),
        Column("already_here", Type.LONG, "items of a re-read record that were there; part of accepted", "count"),
        Column("touched_hours", Type.STRING, "JSON: product to the event hours the accepted rows fall in"),
    ),
    owner="silver",
    description="The balance of every silver commit, copied from its snapshot summary.",
)

GOLD_ACCOUNTING = Table(
    layer="ops",
    name="gold_accounting",
    grain="one row per product and hour of gold.trade_features",
    key=("table_name", "venue", "product_id", "hour"),
    columns=(
        Column("table_name", Type.STRING, "gold.trade_features"),
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("hour", Type.TIMESTAMP, "start of the hour of event_ts"),
        Column("trades", Type.LONG, "rows of silver.trades in the hour = rows + left out", "count"),
        Column("row_count", Type.LONG, "rows written", "count"),
        Column("left_out", Type.LONG, "trades with fewer than 500 before them", "count"),
        Column(
            "later_quotes",
            Type.LONG,
            "trades whose last quote by sequence bears a later time, so that they have none",
            "count",
            True,
        ),
        Column("snapshot_id", Type.LONG, "Iceberg snapshot that wrote the hour"),
        Column("written_at", Type.TIMESTAMP, "when"),
    ),
    owner="gold_trade_features",
    description="That no trade was lost between silver and features.",
)

FEATURE_CATALOGUE = Table(
    layer="ops",
    name="feature_catalogue",
    grain="one row per feature and target of gold.trade_features",
    key=("name",),
    columns=(
        Column("name", Type.STRING, "the column"),
        Column("feature_group", Type.STRING, "price, returns, volume, flow, tempo, time, quotes, integrity or target"),
        Column("position", Type.INTEGER, "its place in the catalogue, from 1"),
        Column("type", Type.STRING, "as Spark spells it"),
        Column("window_trades", Type.INTEGER, "the number of trades that its name carries", "trades", True),
        Column("lookback", Type.INTEGER, "trades before its own that a value reads", "trades"),
        Column("horizon", Type.INTEGER, "trades after its own that a value reads", "trades"),
        Column("reads_future", Type.BOOLEAN, "it is a target: nothing may learn from it as a feature"),
        Column("unit", Type.STRING, "empty where it has none"),
        Column("description", Type.STRING, "a sentence"),
        Column("formula", Type.STRING, "t is the row's own trade"),
        Column("null_rule", Type.STRING, "when it is null"),
        Column("source", Type.STRING, "where the definition is from"),
    ),
    owner="schema",
    description="What docs/features.md says, for SQL; written anew whenever contracts are applied.",
)

PUBLISH_AUDIT = Table(
    layer="ops",
    name="publish_audit",
    grain="one row per published gold table",
    key=("table_name",),
    columns=(
        Column("table_name", Type.STRING, "gold.bars, …"),
        Column("last_snapshot_id", Type.LONG, "gold snapshot up to which Postgres is true"),
        Column(
            "published_through", Type.TIMESTAMP, "end of the last published hour; mart takes live after it", "", True
        ),
        Column("published_at", Type.TIMESTAMP, "when"),
        Column("hours", Type.INTEGER, "hours replaced by the last publication", "count"),
        Column("row_count", Type.LONG, "rows written by the last publication", "count"),
        Column(
            "looked_at",
            Type.TIMESTAMP,
            "when the lake was looked up by the last run that left nothing to publish",
            "",
            True,
        ),
    ),
    owner="publish",
    description="What publication has done; moves in the same transaction as the rows.",
)

QUALITY_RESULT = Table(
    layer="ops",
    name="quality_result",
    grain="one row per check and run",
    key=("check_name", "checked_at"),
    columns=(
        Column("check_name", Type.STRING, "name of the check"),
        Column("checked_at", Type.TIMESTAMP, "when"),
        Column("passed", Type.BOOLEAN, "whether it was judged and held"),
        Column("detail", Type.STRING, "what was compared and found"),
        Column("run_id", Type.STRING, "the run that asked: Airflow's, or one made up by the command", "", True),
        Column("stage", Type.STRING, "scheduled, or publish: of rows on their way to PostgreSQL", "", True),
        Column("subject", Type.STRING, "the table that was judged", "", True),
        Column("outcome", Type.STRING, "passed, failed, or unjudged: what it reads was away", "", True),
        Column("severity", Type.STRING, "hard keeps rows out of PostgreSQL and fails the run; soft tells", "", True),
        Column("owner", Type.STRING, "who mends it: the Dag that writes the table, or a team", "", True),
        Column("failing_rows", Type.LONG, "rows that broke it; null where it was not judged", "count", True),
        Column("sample", Type.STRING, "JSON: the first of them", "", True),
        Column("seconds", Type.DOUBLE, "how long it took", "s", True),
    ),
    owner="quality",
    description="Results of checks over the layers, kept 90 days. ops.quality_trend has them by day.",
    day_column="checked_at",
)

ALERT = Table(
    layer="ops",
    name="alert",
    grain="one row per thing that was wrong, from its first alert to its end",
    key=("alert_key", "opened_at"),
    columns=(
        Column("alert_key", Type.STRING, "what is the same alert: task:publish_bars.publish, layer:silver.trades, …"),
        Column("opened_at", Type.TIMESTAMP, "when it was first seen"),
        Column("severity", Type.STRING, "critical or warning"),
        Column("title", Type.STRING, "one line"),
        Column("body", Type.STRING, "JSON: what was posted, without the target"),
        Column("last_seen_at", Type.TIMESTAMP, "when it was last seen"),
        Column("times_seen", Type.LONG, "how often; all but the first are told again only after 12 hours", "count"),
        Column("sent_at", Type.TIMESTAMP, "when the target last took it; null until it did", "", True),
        Column("failed_sends", Type.LONG, "deliveries that the target did not take", "count"),
        Column("last_error", Type.STRING, "of the last of them", "", True),
        Column("closed_at", Type.TIMESTAMP, "when it was over; null while it lasts", "", True),
        Column("recovery_sent_at", Type.TIMESTAMP, "when the target took the word that it is over", "", True),
    ),
    owner="alerts",
    description="Who was told of what, and for how long it lasted. What nobody could be told is here all the same.",
)

QUOTA_USAGE = Table(
    layer="ops",
    name="quota_usage",
    grain="one row per source, plan and month",
    key=("source", "plan", "month"),
    columns=(
        Column("source", Type.STRING, "name of the source: coingecko, binance_prices, …"),
        Column("plan", Type.STRING, "name of the plan"),
        Column("month", Type.DATE, "first day of the month, UTC"),
        Column("calls", Type.LONG, "requests sent, retries included; of binance_prices their weight", "count"),
        Column("calls_allowed", Type.LONG, "the plan's monthly quota; null where there is none", "count", True),
        Column("updated_at", Type.TIMESTAMP, "when"),
    ),
    owner="producer",
    description="Calls spent against each plan.",
)

BACKFILL = Table(
    layer="ops",
    name="backfill",
    grain="one row per interval of history that was asked for",
    key=("source", "product_id", "what", "start_ts", "end_ts"),
    columns=(
        Column("source", Type.STRING, "venue whose REST history is asked"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("what", Type.STRING, "trades, or candles:1m and so on"),
        Column("start_ts", Type.TIMESTAMP, "start of the interval, inclusive"),
        Column("end_ts", Type.TIMESTAMP, "its end, exclusive"),
        Column("cursor", Type.STRING, "border of what is in Kafka, in the venue's own terms", "", True),
        Column("reached_ts", Type.TIMESTAMP, "time of the history that the pages have come to", "", True),
        Column("pages", Type.INTEGER, "pages in Kafka", "count"),
        Column("items", Type.LONG, "trades or candles on them, those beyond the borders too", "count"),
        Column("status", Type.STRING, "running, done or failed; running without a process was killed"),
        Column("detail", Type.STRING, "why it failed, or what the history lacks", "", True),
        Column("updated_at", Type.TIMESTAMP, "when this row was written"),
        Column("notes", Type.STRING, "JSON: what the pages before the cursor showed the history to lack", "", True),
    ),
    owner="backfill_history",
    description="What history was asked for, and where to go on: the cursor moves once Kafka has the page.",
)

FORECAST_RUN = Table(
    layer="ops",
    name="forecast_run",
    grain="one row per training of a forecast",
    key=("run_id",),
    columns=(
        Column("run_id", Type.STRING, "product, horizon, time and the first eight digits of the model's hash"),
        Column("trained_at", Type.TIMESTAMP, "when"),
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("horizon", Type.INTEGER, "how far ahead the direction is foretold", "trades"),
        Column("snapshot_id", Type.LONG, "snapshot of gold.trade_features that the rows are of"),
        Column("first_event_ts", Type.TIMESTAMP, "time of the first trade that was used"),
        Column("last_event_ts", Type.TIMESTAMP, "time of the last one"),
        Column("row_count", Type.LONG, "final rows with a target that were used", "count"),
        Column("tested_rows", Type.LONG, "rows that were foretold by a model that had not seen them", "count"),
        Column("effective_rows", Type.DOUBLE, "tested rows / horizon, since targets of neighbours overlap", "count"),
        Column("accuracy", Type.DOUBLE, "share of the tested rows whose direction was foretold"),
        Column("log_loss", Type.DOUBLE, "of its probabilities", "nats"),
        Column("auc", Type.DOUBLE, "area under the ROC curve; null where all went the same way", "", True),
        Column("settled_rows", Type.LONG, "tested rows after which no trade of the same instant came", "count"),
        Column("settled_accuracy", Type.DOUBLE, "of these, the only ones that one could act on", "", True),
        Column("base_rate_log_loss", Type.DOUBLE, "log-loss of the share of rises in training", "nats"),
        Column("coin_flip_accuracy", Type.DOUBLE, "0.5"),
        Column("majority_accuracy", Type.DOUBLE, "of the direction that was more frequent in training"),
        Column("last_direction_accuracy", Type.DOUBLE, "of: the last change of the price repeats"),
        Column("reversed_accuracy", Type.DOUBLE, "of: the last change of the price is taken back"),
        Column("taker_accuracy", Type.DOUBLE, "of: up after a buy, down after a sell"),
        Column("bounce_accuracy", Type.DOUBLE, "of: down after a buy, up after a sell"),
        Column(
            "beats_baseline",
            Type.BOOLEAN,
            "better than each of them by more than two standard errors, of all tested rows and of the settled ones",
        ),
        Column("verdict", Type.STRING, "that in sentences"),
        Column("model_uri", Type.STRING, "LightGBM's text; run.json beside it has features, parameters and every fold"),
        Column("model_sha256", Type.STRING, "SHA-256 of the model's bytes: the same snapshot gives the same ones"),
    ),
    owner="train_forecast",
    description="What was trained on which snapshot, beside guesses that need no model.",
)

CONTRACT_VERSION = Table(
    layer="ops",
    name="contract_version",
    grain="one row per table and version of its contract",
    key=("table_name", "contract_hash"),
    columns=(
        Column("table_name", Type.STRING, "silver.trades, …"),
        Column("contract_hash", Type.STRING, "SHA-256 of the columns' names and types"),
        Column("applied_at", Type.TIMESTAMP, "when this machine applied it"),
        Column("changes", Type.STRING, "what was created, added or widened"),
    ),
    owner="up",
    description="Which contract a store was brought to, and when.",
)

OPS_TABLES = (
    TRADE_GAP,
    STREAM_PROGRESS,
    SERVICE_DESIRED,
    SERVICE_EVENT,
    LAYER_FRESHNESS_MARK,
    SILVER_ACCOUNTING,
    GOLD_ACCOUNTING,
    FEATURE_CATALOGUE,
    PUBLISH_AUDIT,
    QUALITY_RESULT,
    ALERT,
    QUOTA_USAGE,
    BACKFILL,
    FORECAST_RUN,
    CONTRACT_VERSION,
)
