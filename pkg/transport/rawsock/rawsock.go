// Package rawsock makes system calls on sockets that do not block: those of
// package net, within the callbacks of a [syscall.RawConn].
//
// Go announces each system call to its scheduler, for it may take long. That
// wakes the scheduler's monitor thread whenever the program was idle before,
// which then polls for a while and goes to sleep again: for a proxy of
// datagrams that is two futex calls, a sleep and two changes of thread for each
// of them, a quarter of its work. Calls that cannot block need no announcement;
// on Linux these make none.
package rawsock
