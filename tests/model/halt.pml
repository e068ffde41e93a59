/* Gate, latch, lease and hosts, for the promise that a halt holds. README.md beside this file says what is left out.
 *
 * Each `atomic` is a transaction of the store, or code in a host without an await. A message may be late for any time:
 * it is a step of its own between two of those. Frozen is who takes no step.
 * The faults: -DGATE_READS_BEFORE, -DHOST_AWAITS, -DDEATH_ASSUMED, -DOLD_LEASE_FORGOTTEN, -DSETTLES_UNASKED.
 */
#define HOSTS 2
#define CALLS 2 /* of each host */
#define STEPS 4

mtype = { NONE, OPEN, CLOSED };

mtype step[STEPS];      /* in the ledger */
byte lease_of[STEPS];   /* the epoch under which its gate let it through */
bool listed[STEPS];     /* on the latch's list */
bool started[STEPS];
bool held[STEPS];       /* a permit that its host has and has not used yet */

byte epoch = 1;
bool latched, settled;
bool told[HOSTS];       /* its own latch, which it looks at as it starts a call */
bool dead[HOSTS];

inline start(k) {
	/* The two promises. */
	assert(!latched || listed[k]);
	assert(!settled);
	started[k] = true;
	held[k] = false
}

/* A host of the lease `mine`: asks at the gate, gets the answer later, starts the call, and reports its end. */
proctype Host(byte h; byte mine) {
	byte i, k;
	bool permit, seen;
	do
	:: i < CALLS && !dead[h] ->
		k = h * CALLS + i;
#ifdef GATE_READS_BEFORE
		seen = latched;
		atomic { permit = (epoch == mine && !seen); if :: permit -> step[k] = OPEN; lease_of[k] = mine; held[k] = true :: else fi }
#else
		atomic { permit = (epoch == mine && !latched); if :: permit -> step[k] = OPEN; lease_of[k] = mine; held[k] = true :: else fi }
#endif
		if
		:: permit ->
#ifdef HOST_AWAITS
			seen = told[h];
			atomic { if :: !dead[h] && !seen -> start(k) :: else fi };
#else
			atomic { if :: !dead[h] && !told[h] -> start(k) :: else fi };
#endif
			/* It ends by itself, or never does. */
			if
			:: atomic { started[k] && !dead[h] -> step[k] = CLOSED }
			:: true
			fi
		:: else
		fi;
		i++
	:: else -> break
	od
}

/* The halt reaches a host: from now on it starts nothing, and gives back what it has not started. */
proctype Listener(byte h) {
	byte k;
	latched;
	atomic {
		if
		:: !dead[h] ->
			told[h] = true;
			for (k : h * CALLS .. h * CALLS + CALLS - 1) {
				if :: held[k] && !started[k] -> step[k] = CLOSED; held[k] = false :: else fi
			}
		:: else
		fi
	}
}

/* What does not answer, or does not end, is killed, and its open steps are closed when its death is certain. */
proctype Supervisor(byte h) {
	byte k;
	latched;
#ifndef DEATH_ASSUMED
	dead[h] = true;
#endif
	atomic {
		for (k : h * CALLS .. h * CALLS + CALLS - 1) {
			if :: step[k] == OPEN -> step[k] = CLOSED :: else fi
		}
	}
#ifdef DEATH_ASSUMED
	dead[h] = true
#endif
}

/* The first host falls silent: its lease ends, and another host gets the run. What it had open stays in doubt. */
proctype Lease() {
	atomic { if :: epoch = 2 :: true fi };
	if :: epoch == 2 -> run Host(1, 2) :: else fi
}

proctype Latch() {
	byte k;
	atomic {
		latched = true;
		for (k : 0 .. STEPS - 1) {
#ifdef OLD_LEASE_FORGOTTEN
			listed[k] = (step[k] == OPEN && lease_of[k] == epoch)
#else
			listed[k] = (step[k] == OPEN)
#endif
		}
	};
#ifdef SETTLES_UNASKED
	atomic { settled = true }
#else
	atomic {
		(!(listed[0] && step[0] == OPEN) && !(listed[1] && step[1] == OPEN) &&
		 !(listed[2] && step[2] == OPEN) && !(listed[3] && step[3] == OPEN)) -> settled = true
	}
#endif
}

init {
	byte k;
	for (k : 0 .. STEPS - 1) { step[k] = NONE }
	atomic {
		run Host(0, 1);
		run Lease();
		run Latch();
		run Listener(0); run Listener(1);
		run Supervisor(0); run Supervisor(1)
	}
}

ltl a_halt_settles { [] (latched -> <> settled) }
