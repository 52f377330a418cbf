"""How a test's Spark is started."""

from __future__ import annotations

# A test's Spark lives for minutes and runs each plan once: compilers, Java's optimizing one and Spark's own, would take
# a whole core for nothing.
SHORT_LIVED_SPARK = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.sql.codegen.wholeStage=false "
    "-Dspark.sql.codegen.factoryMode=NO_CODEGEN -Dspark.sql.adaptive.enabled=false"
)
