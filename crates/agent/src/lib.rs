//! The ReAct turn as a coroutine; context building; the driver of its effects.
