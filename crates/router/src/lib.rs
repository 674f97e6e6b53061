//! Which model, at what price, with what retries; speaks to providers.
