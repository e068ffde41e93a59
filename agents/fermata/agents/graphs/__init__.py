"""Agents that come with Fermata, as plain LangGraph graphs: nothing in them is out of reach for a graph of your own."""
