"""Counts words: the same contract as Node's, `def handler(event, context)`."""
from collections import Counter


def handler(event, context):
    words = event["data"].get("text", "").lower().split()
    print(f"counting {len(words)} words in run {context.run_id}")
    return {"words": len(words), "most": Counter(words).most_common(3)}
