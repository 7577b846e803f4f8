"""A pytest plugin for tests of your own code: the sandbox, clients on it, and a clock that jumps.

pytest loads `plugin`, which imports nothing else before a test asks for one of its fixtures. For annotations,
`audioext.testing.clients` has `ClientFactory` and `SandboxClient`, and `audioext.testing.clock` has `JumpClock`.
"""
