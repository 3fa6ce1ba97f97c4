"""What a reader of shards would trip over: looked for in tars of anyone, and in an artifact's index beside its tars."""
