"""Tests of your own code: a pytest plugin that brings the sandbox, clients on it, and a clock that jumps.

`plugin` is what pytest loads, and it loads nothing else before a test asks for one of its fixtures. For annotations,
`audioext.testing.clients` has `ClientFactory` and `SandboxClient`, and `audioext.testing.clock` has `JumpClock`.
"""
