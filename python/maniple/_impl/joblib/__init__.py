"""The joblib backend. Only `maniple.joblib` imports this folder, and only `backend` and `worker` import joblib."""
