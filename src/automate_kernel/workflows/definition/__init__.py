"""What an author writes: workflows, their triggers and steps, and what is wrong with them."""
