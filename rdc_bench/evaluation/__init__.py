"""The evaluation: plan, shards, execution, records. It knows no particular attack, threat or model."""
