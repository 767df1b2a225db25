# What makes a process a good worker: it ends with its parent and does not listen to Ctrl-C.

"""
    end_with_parent()

Ask Linux to kill this process when the thread that started it ends; elsewhere end of file on the pipe
does the same, though only once a forward pass is over. The parent may have died before the request,
so it is looked at once more.
"""
function end_with_parent()
    Sys.islinux() || return nothing
    parent = ccall(:getppid, Cint, ())
    request, signal = 1, 9  # PR_SET_PDEATHSIG, SIGKILL
    ccall(:prctl, Cint, (Cint, Culong, Culong, Culong, Culong), request, signal, 0, 0, 0)
    ccall(:getppid, Cint, ()) == parent || exit(0)
    return nothing
end

"""
    ignore_interrupts(f)

Ctrl-C in the terminal is for the daemon, which then stops its worker in order. Julia takes SIGINT with
`sigwait`, past the signal's disposition, so that ignoring it in the usual way does nothing: the worker
leaves the terminal's process group instead, and defers what is sent to it directly. `f` has to end in
`exit`: what was deferred would be thrown after it.
"""
function ignore_interrupts(f)
    Sys.isunix() && ccall(:setpgid, Cint, (Cint, Cint), 0, 0)
    Base.exit_on_sigint(false)
    return disable_sigint(f)
end
